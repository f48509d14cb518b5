//! Tells a model's text from what comes with it: thoughts, the tokens of its
//! chat template, and refusals in words.

mod code;
pub(super) mod filter;
mod place;
pub(super) mod refusal;
mod template_tokens;
mod thoughts;
