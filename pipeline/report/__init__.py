"""The report: one HTML file about the results of a run, from its files alone.

selection → steps → rows → survey, scores, curves → sampling → layers, originals, thumbnails → gallery → page.
"""
