"""The two colours of pictures, pages and the terminal, which people who do not see all colours can tell apart."""

ORANGE, BLUE = (217, 96, 26), (31, 95, 168)  # red, green, blue: 0-255
