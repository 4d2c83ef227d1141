"""Networks run on images of any size, with few compiled programs and bounded memory."""
