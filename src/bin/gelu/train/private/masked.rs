//! Private training, both sides in this process.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use gelu_io::session::{Checkpoint, Go, TrainingAccount, read_checkpoint, run_turn, write_checkpoint};
use gelu_models::train::private::{Client, Server};
use gelu_tensor::paillier::KeyParameters;

use super::progress::{Curve, Progress, sum};
use super::{Done, Kept, Setting, check_command, checkpoint_path, interval, make_folder};
use crate::model_args::{new_key, warn_of_short_key};
use crate::train::{Args, command};

pub(super) fn run(args: &Args, setting: &mut Setting) -> anyhow::Result<Done> {
    let parameters =
        KeyParameters { size: args.private.key_bits.into(), key_type: args.private.key_type.into() };
    warn_of_short_key(parameters.size);
    let (mut server_rng, mut client_rng) = (rand::rng(), rand::rng());
    let new_key = || new_key(parameters).map(Arc::new);
    let (plan, config) = (setting.plan.clone(), setting.config.clone());
    let members = setting.clients(args);
    let mut kept = Kept { command: command(args), curve: vec![], seconds: 0.0 };
    let mut account = TrainingAccount::default();
    let path = args.checkpoint_dir.as_deref().map(checkpoint_path);
    let server_key = new_key()?;
    let mut clients = vec![];
    let mut server = match (&path, args.resume) {
        (Some(path), true) => {
            let checkpoint: Checkpoint<Kept> =
                read_checkpoint(path).context("--resume needs a checkpoint")?;
            check_command(path, &checkpoint.run, args)?;
            ensure!(
                checkpoint.clients.len() == members.len(),
                "{}: expected the states of {} clients, found {}",
                path.display(),
                members.len(),
                checkpoint.clients.len()
            );
            kept = checkpoint.run;
            account = checkpoint.account;
            for ((samples, learner), state) in members.into_iter().zip(checkpoint.clients) {
                let key = new_key()?;
                clients.push(match state {
                    Some(state) => {
                        Client::resume(key, samples, learner, (plan.description().clone(), state))?
                    }
                    None => Client::new(key, samples, learner),
                });
            }
            let server = Server::resume(plan, server_key, config, checkpoint.server)?;
            eprintln!("resuming after {} of {} iterations", server.iterations_done(), server.iterations());
            server
        }
        _ => {
            for (samples, learner) in members {
                clients.push(Client::new(new_key()?, samples, learner));
            }
            Server::new(plan, server_key, config, setting.parameters.clone())?
        }
    };
    setting.warn(server.leakage());
    let others = |clients: &[Client]| sum(clients.iter().map(Client::statistics));
    let mut curve = Curve::new(kept.curve.clone(), others(&clients));
    let mut progress = Progress::new(curve.before.images, server.iterations() * setting.plan.batch() as u64)?;
    let (start, mut saved) = (Instant::now(), Instant::now());
    while !server.is_complete() {
        let at = (server.master().turns % clients.len() as u64) as usize;
        let (before, rest) = clients.split_at_mut(at);
        let (client, after) = rest.split_first_mut().context("a run needs at least one client")?;
        let (elsewhere, last) = (sum(before.iter().chain(&*after).map(Client::statistics)), curve.last());
        let between = |server: &Server, client: &Client, account: &TrainingAccount| -> anyhow::Result<Go> {
            // Only where both sides are at hand can this be seen (the paper's algorithms 3 and 5).
            ensure!(
                client.totals().is_none_or(|totals| server.agrees(client.masks(), totals)),
                "masked weights and masks no longer add up to the weights: this is a bug of gelu-net"
            );
            progress.show(&sum([elsewhere, client.statistics()]), &last);
            if let Some(path) = &path
                && saved.elapsed() >= interval(args)
            {
                make_folder(path.parent().unwrap_or(Path::new(".")))?;
                let seconds = kept.seconds + start.elapsed().as_secs_f64();
                let clients = before.iter().chain([client]).chain(&*after).map(Client::state).collect();
                let run = Kept { curve: curve.points.clone(), seconds, ..kept.clone() };
                let server = server.state();
                write_checkpoint(path, &Checkpoint { run, server, clients, account: account.clone() })?;
                saved = Instant::now();
            }
            Ok(Go::On)
        };
        let rngs: [&mut dyn rand::CryptoRng; 2] = [&mut server_rng, &mut client_rng];
        run_turn(&mut server, client, &mut account, rngs, between)?;
        let now = others(&clients);
        curve.note(setting, server.master(), now, server.is_complete())?;
        progress.show(&now, &curve.last());
    }
    progress.bar.finish_and_clear();
    if let Some(path) = &path {
        make_folder(path.parent().unwrap_or(Path::new(".")))?;
        let seconds = kept.seconds + start.elapsed().as_secs_f64();
        let run = Kept { curve: curve.points.clone(), seconds, ..kept.clone() };
        let clients = clients.iter().map(Client::state).collect();
        write_checkpoint(
            path,
            &Checkpoint { run, server: server.state(), clients, account: account.clone() },
        )?;
    }
    Ok(Done {
        master: server.master().clone(),
        leakage: server.leakage().to_vec(),
        statistics: others(&clients),
        account: Some(account),
        curve: curve.points,
        seconds_before: kept.seconds,
    })
}
