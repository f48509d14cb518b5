//! The processes under test, and what they are surrounded with.

mod client;
mod cluster;
mod collector;
mod cuttable_proxy;
mod process;
mod scripted_agent;
mod service;
mod skewed_clock;

pub(crate) use client::{Answer, Client, PASSWORD, is_over, outcomes, text};
pub(crate) use cluster::{Cluster, Stop};
pub(crate) use collector::{Collector, Span};
pub(crate) use cuttable_proxy::{Quality, Wire};
pub(crate) use process::{Exit, PATIENCE, Process, binary, dead, send};
pub(crate) use scripted_agent::{HEADINGS, OUTLINE, Writer, write};
pub(crate) use service::{Api, LEASE, Service};
pub(crate) use skewed_clock::SkewedClock;
