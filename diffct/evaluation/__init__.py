"""How good and how private generated images are, and under which protocol that was found."""
