use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const PATIENCE: LinkPatience =
    LinkPatience { silence: Duration::from_secs(20), absence: Duration::from_secs(20) };

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Moves frames from one link to another until `frames` have been moved or there are none; the last is lost on the way.
async fn carry(from: (&Link, u64), to: (&Link, u64), frames: usize) -> bool {
    for moved in 0..frames {
        let next = tokio::time::timeout(Duration::from_millis(5), from.0.next(from.1)).await;
        let Ok(next) = next else { return true };
        let is_lost = moved + 1 == frames;
        match next.unwrap() {
            _ if is_lost => {}
            Some(Outgoing::Message { number, message, received }) => {
                to.0.deliver(to.1, (number, message), received).await.unwrap();
            }
            Some(Outgoing::Received(received)) => to.0.confirmed(to.1, received).unwrap(),
            None => return true,
        }
    }
    false
}

fn connect(links: [&Link; 2]) -> [u64; 2] {
    let has = links.map(Link::received);
    [links[0].connect(has[1]).unwrap(), links[1].connect(has[0]).unwrap()]
}

fn received(link: &Link) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| link.try_receive().unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However often the connection breaks and wherever, each side gets all that the other said, once and in order.
    #[test]
    fn nothing_is_lost_repeated_or_reordered(
        counts in prop::array::uniform2(0_usize..40),
        cuts in prop::collection::vec((1_usize..12, 1_usize..12), 0..8),
    ) {
        let [first, second] = [Link::new(PATIENCE), Link::new(PATIENCE)];
        let said = counts.map(|count| (0..count).map(|at| vec![at as u8; at % 7]).collect::<Vec<_>>());
        for (link, said) in [(&first, &said[0]), (&second, &said[1])] {
            said.iter().for_each(|message| link.send(message.clone()).unwrap());
        }
        let mut heard = [vec![], vec![]];
        runtime().block_on(async {
            for (up, down) in cuts.into_iter().chain([(usize::MAX, usize::MAX)]) {
                let [a, b] = connect([&first, &second]);
                carry((&first, a), (&second, b), up).await;
                carry((&second, b), (&first, a), down).await;
                first.disconnect(a);
                second.disconnect(b);
                heard[1].extend(received(&second));
                heard[0].extend(received(&first));
            }
        });
        prop_assert_eq!(&heard[1], &said[0]);
        prop_assert_eq!(&heard[0], &said[1]);
    }
}

/// What a network that keeps no order does to a frame.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Lost,
    Repeated,
    Overtaken,
    /// All of it comes over a new connection.
    Cut,
}

fn faults() -> impl Strategy<Value = Vec<(usize, Fault)>> {
    let fault =
        prop_oneof![Just(Fault::Lost), Just(Fault::Repeated), Just(Fault::Overtaken), Just(Fault::Cut)];
    prop::collection::vec((0_usize..20, fault), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Frames that are lost, come twice or in another order end the conversation, or nothing comes of them. What is read is
    /// what was said up to there, and a message that is sent again has the bytes that it had.
    #[test]
    fn a_stream_against_the_rules_gives_nothing_that_was_not_said(faults in faults(), count in 0_usize..20) {
        let [first, second] = [Link::new(PATIENCE), Link::new(PATIENCE)];
        let said: Vec<Vec<u8>> = (0..count).map(|at| vec![at as u8; 1 + at % 5]).collect();
        said.iter().for_each(|message| first.send(message.clone()).unwrap());
        let mut heard = vec![];
        let mut broken = false;
        runtime().block_on(async {
            let [mut a, mut b] = connect([&first, &second]);
            let mut overtaken = None;
            let mut at = 0;
            loop {
                let next = tokio::time::timeout(Duration::from_millis(2), first.next(a)).await;
                let Ok(Ok(Some(Outgoing::Message { number, message, received }))) = next else { break };
                // The same bytes whenever it is sent.
                assert_eq!(message, said[number as usize]);
                let fault = faults.iter().find(|(place, _)| *place == at).map(|(_, fault)| *fault);
                at += 1;
                let frame = (number, message);
                let frames = match fault {
                    None => [Some(frame), overtaken.take()],
                    Some(Fault::Lost) => [None, None],
                    Some(Fault::Repeated) => [Some(frame.clone()), Some(frame)],
                    Some(Fault::Overtaken) => [overtaken.replace(frame), None],
                    Some(Fault::Cut) => {
                        first.disconnect(a);
                        second.disconnect(b);
                        overtaken = None;
                        [a, b] = connect([&first, &second]);
                        [None, None]
                    }
                };
                for frame in frames.into_iter().flatten() {
                    match second.deliver(b, frame, received).await {
                        Ok(()) => {}
                        Err(ServiceError::Stream { .. }) => broken = true,
                        Err(other) => panic!("{other}"),
                    }
                }
                heard.extend(self::received(&second));
                if broken {
                    break;
                }
            }
        });
        prop_assert_eq!(&heard[..], &said[..heard.len()]);
        let only_cuts = faults.iter().all(|(_, fault)| matches!(fault, Fault::Cut));
        prop_assert!(!only_cuts || heard == said);
    }
}

/// The connection breaks after every frame once, on its way up or down.
#[test]
fn a_break_after_any_frame_loses_nothing() {
    for (cut, down) in (1..30).flat_map(|cut| [(cut, false), (cut, true)]) {
        let links = [Link::new(PATIENCE), Link::new(PATIENCE)];
        let said: Vec<Vec<u8>> = (0..20).map(|at| vec![at; 3]).collect();
        for link in &links {
            said.iter().for_each(|message| link.send(message.clone()).unwrap());
        }
        let [first, second] = &links;
        runtime().block_on(async {
            let [a, b] = connect([first, second]);
            match down {
                false => carry((first, a), (second, b), cut).await,
                true => carry((second, b), (first, a), cut).await,
            };
            let [a, b] = connect([first, second]);
            carry((first, a), (second, b), usize::MAX).await;
            carry((second, b), (first, a), usize::MAX).await;
        });
        assert_eq!(
            [received(first), received(second)],
            [said.clone(), said],
            "after frame {cut}, down {down}"
        );
    }
}

#[test]
fn what_the_other_side_has_is_not_kept() {
    let [first, second] = [Link::new(PATIENCE), Link::new(PATIENCE)];
    let [a, b] = connect([&first, &second]);
    for at in 0..100_u8 {
        first.send(vec![at]).unwrap();
    }
    assert_eq!(first.state().sequence.kept(), 100);
    runtime().block_on(async {
        carry((&first, a), (&second, b), 101).await;
        carry((&second, b), (&first, a), 101).await;
    });
    // It is told of every eighth.
    assert!(first.state().sequence.kept() < 8, "{}", first.state().sequence.kept());
}

#[test]
fn a_side_that_does_not_read_makes_the_other_wait() {
    let [first, second] = [Link::new(PATIENCE), Link::new(PATIENCE)];
    let [a, b] = connect([&first, &second]);
    for _ in 0..3 {
        first.send(vec![7; INBOX_BYTES]).unwrap();
    }
    runtime().block_on(async {
        let waits =
            tokio::time::timeout(Duration::from_millis(50), carry((&first, a), (&second, b), 9)).await;
        assert!(waits.is_err());
        assert_eq!(second.received(), 1);
        assert_eq!(received(&second).len(), 1);
    });
}

#[test]
fn lies_about_what_has_arrived_are_refused() {
    let link = Link::new(PATIENCE);
    link.send(vec![1]).unwrap();
    assert!(matches!(link.connect(2), Err(ServiceError::Stream { .. })));
    let connection = link.connect(0).unwrap();
    assert!(matches!(link.confirmed(connection, 1), Err(ServiceError::Stream { .. })), "not sent yet");
    runtime().block_on(async {
        link.next(connection).await.unwrap();
        link.confirmed(connection, 1).unwrap();
        let skipped = link.deliver(connection, (1, Bytes::new()), 1).await;
        assert!(matches!(skipped, Err(ServiceError::Stream { .. })));
    });
    assert!(matches!(link.connect(0), Err(ServiceError::Stream { .. })), "it was confirmed and is gone");
}

#[test]
fn a_connection_that_was_overtaken_delivers_nothing() {
    let link = Link::new(PATIENCE);
    let old = link.connect(0).unwrap();
    let new = link.connect(0).unwrap();
    runtime().block_on(async {
        assert!(matches!(link.deliver(old, (0, Bytes::new()), 0).await, Err(ServiceError::Ended)));
        assert!(matches!(link.next(old).await, Err(ServiceError::Ended)));
        link.disconnect(old);
        link.deliver(new, (0, Bytes::new()), 0).await.unwrap();
    });
    assert_eq!(link.try_receive(), Ok(Some(vec![])));
}

#[test]
fn silence_and_absence_end_the_wait() {
    let short = Duration::from_millis(30);
    let silent = Link::new(LinkPatience { silence: short, absence: Duration::from_secs(60) });
    silent.connect(0).unwrap();
    assert_eq!(silent.receive(), Err(Disconnected));
    assert!(matches!(silent.why(), Some(ServiceError::Silent { waited }) if waited == short));
    let alone = Link::new(LinkPatience { silence: Duration::from_secs(60), absence: short });
    assert_eq!(alone.receive(), Err(Disconnected));
    assert!(alone.why().is_some() && alone.send(vec![]).is_err());
}

#[test]
fn a_wait_ends_when_a_message_comes() {
    let link = Arc::new(Link::new(PATIENCE));
    let connection = link.connect(0).unwrap();
    let waiting = {
        let link = Arc::clone(&link);
        std::thread::spawn(move || link.receive())
    };
    runtime().block_on(link.deliver(connection, (0, Bytes::from_static(b"here")), 0)).unwrap();
    assert_eq!(waiting.join().unwrap(), Ok(b"here".to_vec()));
}
