"""The report: one HTML file that shows what a run made, from its files alone.

found → steps → rows → survey, scores, curves → sampling → layers, originals, thumbnails → gallery → page.
"""
