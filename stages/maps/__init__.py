"""What several stages need to turn stored tokens into soft maps: CST's maps, kept mass, thresholds, upsampling."""
