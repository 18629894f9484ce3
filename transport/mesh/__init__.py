"""How nodes find each other, prove who they are, and stay connected, over any transport."""
