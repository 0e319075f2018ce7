//! ⑥ What readers need after a commit.
