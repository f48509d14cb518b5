//! Tells a model's text from what comes with it: thoughts, the tokens of its
//! chat template, and refusals in words.

mod code;
pub(super) mod refusal;
pub(super) mod template_tokens;
pub(super) mod thoughts;
