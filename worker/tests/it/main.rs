//! The worker as a whole, and its agents against stubs that speak their
//! providers' protocols.

mod agent_anthropic;
mod agent_anthropic_answers;
mod agent_connections;
mod agent_errors;
mod agent_http;
mod agent_http_limits;
mod agent_openai;
mod agent_openai_chunks;
mod agent_openai_rows;
mod agent_openai_streams;
mod agent_openai_texts;
mod agent_provider;
mod agent_refused_arguments;
mod agent_rows;
mod agent_script;
