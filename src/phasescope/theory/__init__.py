"""Models of learning that are solved exactly, to hold what is measured of networks against."""
