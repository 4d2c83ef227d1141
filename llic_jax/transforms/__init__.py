"""The blocks of LLIC, and the transforms `g_a` and `g_s` that are made of them."""
