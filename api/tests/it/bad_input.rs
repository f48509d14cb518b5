//! What can't be read gets the contract's answer, and changes nothing.
