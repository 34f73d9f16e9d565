//! `gelu plan --hide-model`

use gelu_models::plan::{HiddenPlan, HiddenSegment, Plan};
use serde_json::{Value, json};

use super::bytes;
use crate::hide::{ands, reveal_name};
use crate::report::TextTable;

/// A sum over the segments.
fn sum(hidden: &HiddenPlan, of: fn(&HiddenSegment) -> usize) -> usize {
    hidden.segments().iter().map(of).sum()
}

pub(super) fn to_json(plan: &Plan, (hidden, most_prepared): (&HiddenPlan, usize), model: &str) -> Value {
    let segments: Vec<Value> = hidden
        .segments()
        .iter()
        .map(|segment| {
            let (up, down) = (segment.ciphertexts_up, segment.ciphertexts_down);
            json!({
                "name": segment.name, "ring_bits": segment.ring.bits(), "slot_bits": segment.flood.slot_bits(),
                "layout_down": segment.layout.down.to_string(),
                "products": segment.layout.operations.products, "squarings": segment.layout.operations.squarings,
                "ciphertexts_up": up, "ciphertexts_down": down,
                "bytes_up": bytes(plan, up), "bytes_down": bytes(plan, down),
                "ands": segment.ands, "table_bytes": segment.tables, "transfer_bytes": segment.transfers,
                "share_bytes": segment.shares, "answer_bytes": segment.answer,
            })
        })
        .collect();
    json!({
        "model": model, "mode": "hidden", "reveal": reveal_name(hidden.reveal()),
        "key_bits": plan.key().size.bits(), "prepared_together": plan.description().batch,
        "prefer": plan.description().prefer, "segments": segments, "round_trips": hidden.round_trips(),
        "ands": ands(hidden),
        "client_bytes_a_query": hidden.client_bytes(), "server_bytes_a_query": hidden.server_bytes(),
        "most_prepared": most_prepared,
        "table_bytes": sum(hidden, |segment| segment.tables),
        "transfer_bytes": sum(hidden, |segment| segment.transfers),
        "online_bytes_up": sum(hidden, |segment| segment.shares),
        "online_bytes_down": sum(hidden, |segment| segment.answer),
        "products": hidden.segments().iter().map(|segment| segment.layout.operations.products).sum::<u64>(),
        "squarings": hidden.segments().iter().map(|segment| segment.layout.operations.squarings).sum::<u64>(),
    })
}

pub(super) fn to_text(plan: &Plan, (hidden, most_prepared): (&HiddenPlan, usize), model: &str) -> String {
    let queries = plan.description().batch;
    let kilobytes = |bytes: usize| format!("{:.1}", bytes as f64 / 1e3);
    let mut table = TextTable::new([
        "segment",
        "ring",
        "slot",
        "ct up",
        "ct down",
        "products",
        "ANDs",
        "kB of tables",
        "kB of transfers",
        "kB up online",
        "kB down online",
    ]);
    for segment in hidden.segments() {
        table.row([
            segment.name.clone(),
            format!("2^{}", segment.ring.bits()),
            format!("{} bits", segment.flood.slot_bits()),
            segment.ciphertexts_up.to_string(),
            segment.ciphertexts_down.to_string(),
            segment.layout.operations.total().to_string(),
            segment.ands.to_string(),
            kilobytes(segment.tables),
            kilobytes(segment.transfers),
            kilobytes(segment.shares),
            kilobytes(segment.answer),
        ]);
    }
    let (up, down) = (sum(hidden, |it| it.ciphertexts_up), sum(hidden, |it| it.ciphertexts_down));
    let products: u64 = hidden.segments().iter().map(|segment| segment.layout.operations.total()).sum();
    table.row([
        "all".to_owned(),
        String::new(),
        String::new(),
        up.to_string(),
        down.to_string(),
        products.to_string(),
        ands(hidden).to_string(),
        kilobytes(sum(hidden, |it| it.tables)),
        kilobytes(sum(hidden, |it| it.transfers)),
        kilobytes(sum(hidden, |it| it.shares)),
        kilobytes(sum(hidden, |it| it.answer)),
    ]);
    format!(
        "{model}, hidden from the client but for the {}, key of {} bits\n\n{table}\n\
         ahead: ciphertexts and products for {queries} queries together ({} kB up, {} kB down); circuits, tables and transfers \
         of labels for each\n\
         online: {} round trips an image\n\
         memory of a prepared query: {} kB at the client, {} kB at the server; at most {} are kept\n",
        reveal_name(hidden.reveal()),
        plan.key().size.bits(),
        kilobytes(bytes(plan, up)),
        kilobytes(bytes(plan, down)),
        hidden.round_trips(),
        kilobytes(hidden.client_bytes()),
        kilobytes(hidden.server_bytes()),
        most_prepared,
    )
}
