"""The two colours of pictures, pages and the terminal."""

ORANGE, BLUE = (217, 96, 26), (31, 95, 168)  # red, green, blue: 0-255
