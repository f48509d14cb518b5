//! The available models.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::current_user::CurrentUser;
use crate::state::AppState;

/// The available models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Models {
    items: Vec<Model>,
    /// Whether posts can be written from what a search of the web finds: `options.research` `web`.
    web_search: bool,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Model {
    /// Its name, for `options.model`.
    id: String,
    /// The kind of agent that serves it.
    #[schema(example = "openai")]
    agent: &'static str,
    /// Whether it is used if none is named.
    default: bool,
}

/// List the models
#[utoipa::path(
    get, path = "/models", tag = "blogs",
    responses((status = 200, body = Models)),
)]
pub(crate) async fn list_models(State(state): State<AppState>, _: CurrentUser) -> Json<Models> {
    let items = state
        .capabilities
        .models
        .iter()
        .enumerate()
        .map(|(index, model)| Model {
            id: model.id.clone(),
            agent: model.agent,
            default: index == 0,
        });
    Json(Models {
        items: items.collect(),
        web_search: state.capabilities.web_search,
    })
}
