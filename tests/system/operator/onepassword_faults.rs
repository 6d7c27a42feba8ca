//! Faults of the token, of the way to 1Password, and of what is there.
