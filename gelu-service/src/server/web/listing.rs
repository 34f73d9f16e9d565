//! What browsers are told of models and runs of training, as JSON with the names of gelu.proto.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tonic::Status;

use super::{Door, refused};
use crate::server::Subject;
use crate::{Refusal, proto};

pub(super) async fn models(State(door): State<Arc<Door>>) -> impl IntoResponse {
    let models: Vec<Value> = door.shared.service.models.values().map(|of| model(of.listed())).collect();
    ([(CACHE_CONTROL, "no-store")], Json(models))
}

/// Runs of training: what the server knows of how they stand and how they came there. Clients are places only.
pub(super) async fn training(State(door): State<Arc<Door>>) -> impl IntoResponse {
    let shared = Arc::clone(&door.shared);
    let looked = tokio::task::spawn_blocking(move || {
        let models = &shared.service.models;
        let runs = models.iter().filter_map(|(name, offered)| match &offered.subject {
            Subject::Training(run) => Some(run.told(name)),
            Subject::Inference(..) => None,
        });
        runs.collect::<Result<Vec<Value>, _>>()
    });
    let runs = match looked.await {
        Ok(Ok(runs)) => Ok(runs),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match runs {
        Ok(runs) => ([(CACHE_CONTROL, "no-store")], Json(runs)).into_response(),
        Err(problem) => {
            tracing::warn!(problem, "runs of training cannot be told of");
            let status: Status = Refusal::State.status("the server cannot read the state of its runs");
            refused(&status)
        }
    }
}

fn model(model: proto::Model) -> Value {
    let proto::Model { name, input, outputs, preprocessing, classes, cost, training, hidden } = model;
    json!({
        "name": name,
        "input": input,
        "outputs": outputs,
        "classes": classes,
        "preprocessing": serde_json::from_str::<Value>(&preprocessing).ok(),
        "cost": cost.map(|cost| {
            let proto::Cost { ciphertexts_up, bytes_up, ciphertexts_down, bytes_down, products, round_trips } =
                cost;
            json!({
                "ciphertexts_up": ciphertexts_up,
                "bytes_up": bytes_up,
                "ciphertexts_down": ciphertexts_down,
                "bytes_down": bytes_down,
                "products": products,
                "round_trips": round_trips,
            })
        }),
        "hidden": hidden.map(|cost| {
            let proto::HiddenCost {
                logits, ahead_up, ahead_down, products, ands, online_up, online_down, round_trips,
            } = cost;
            json!({
                "logits": logits,
                "ahead_up": ahead_up,
                "ahead_down": ahead_down,
                "products": products,
                "ands": ands,
                "online_up": online_up,
                "online_down": online_down,
                "round_trips": round_trips,
            })
        }),
        "training": training.map(run),
    })
}

/// A run as clients are told of it.
pub(in crate::server) fn run(training: proto::Training) -> Value {
    let proto::Training {
        run,
        clients,
        enrolled,
        key_bits,
        key_type,
        batch,
        epochs,
        momentum,
        seed,
        done,
        iterations,
    } = training;
    json!({
        "run": run.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "clients": clients,
        "enrolled": enrolled,
        "key_bits": key_bits,
        "key_type": key_type,
        "batch": batch,
        "epochs": epochs,
        "momentum": momentum,
        "seed": seed,
        "done": done,
        "iterations": iterations,
    })
}
