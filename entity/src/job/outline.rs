//! Outlines that wait for their owner's review.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

/// Where the review of a job's outline is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::None)",
    rename_all = "snake_case"
)]
pub enum Review {
    /// The job stops when it has its outline.
    Requested,
    /// The outline is approved: the job writes what it says.
    Approved,
}

/// The title of a post that is to be written, and what each section is to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// The title.
    pub title: String,
    /// The sections, in order.
    pub sections: Vec<PlannedSection>,
}

/// A section of an outline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSection {
    /// Its heading.
    pub heading: String,
    /// What it is to tell; empty if the outline does not say.
    pub about: String,
}

/// The section that a job is to write, if it does not write the whole post.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionTask {
    /// Counted from 0, in the text from which the job starts.
    pub number: u32,
    /// What its owner wants of it.
    pub instructions: Option<String>,
}
