"""Features: features → masks → masked inputs → evaluation → streaming sums.

``numbering``   which input elements are one feature: an integer for every element
``masks``       masks by number, blended with the baselines, evaluated in a stream
``statistics``  running means with error bars, and when to stop sampling
``moments``     sums, means and variances of what is found at many points of each row
"""
