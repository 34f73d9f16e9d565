//! A link between two machines, on one: a proxy that passes on as much as the link does, as late as the link does.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What a segment of TCP carries, and what it takes on the wire.
const SEGMENT: [usize; 2] = [1448, 1514];

/// What a router holds, as time.
const QUEUE: Duration = Duration::from_millis(10);

/// A link with the same rate and delay in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Bits per second, headers of packets included.
    pub rate: f64,
    /// From one end to the other: half a round trip.
    pub delay: Duration,
}

impl Link {
    /// Returns the seconds that so many bytes take in one direction, without the delay.
    pub fn seconds(self, bytes: usize) -> f64 {
        bytes as f64 * 8.0 * SEGMENT[1] as f64 / SEGMENT[0] as f64 / self.rate
    }

    /// Starts a proxy before a server, which ends with the process, and returns its address on this machine. Connections through
    /// it have the link to themselves.
    ///
    /// # Errors
    /// [`std::io::Error`] when there is no port.
    pub fn proxy(self, server: SocketAddr) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                // Whoever connects finds a connection that is closed, as with a server that is gone.
                let _ = self.join(client, server);
            }
        });
        Ok(address)
    }

    /// Returns the seconds of so many times sending bytes through a proxy to a peer that sends them back, whole.
    ///
    /// # Errors
    /// [`std::io::Error`] when there is no port, or a connection fails.
    pub fn there_and_back(self, bytes: usize, times: usize) -> std::io::Result<Vec<f64>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut near = TcpStream::connect(self.proxy(listener.local_addr()?)?)?;
        let (mut far, _) = listener.accept()?;
        for stream in [&near, &far] {
            stream.set_nodelay(true)?;
        }
        let peer = thread::spawn(move || -> std::io::Result<()> {
            let mut buffer = vec![0; bytes];
            (0..times).try_for_each(|_| far.read_exact(&mut buffer).and_then(|()| far.write_all(&buffer)))
        });
        let mut buffer = vec![0; bytes];
        let mut once = || {
            let start = Instant::now();
            near.write_all(&buffer)?;
            near.read_exact(&mut buffer)?;
            Ok(start.elapsed().as_secs_f64())
        };
        let seconds = (0..times).map(|_| once()).collect();
        drop(near);
        // If the peer failed, so did this side.
        let _ = peer.join();
        seconds
    }

    /// Passes on what either says.
    fn join(self, client: TcpStream, server: SocketAddr) -> std::io::Result<()> {
        let server = TcpStream::connect(server)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            let pipe = Arc::new(Pipe::default());
            let into = Arc::clone(&pipe);
            thread::spawn(move || self.enter(from, &into));
            thread::spawn(move || pipe.leave(to));
        }
        Ok(())
    }

    /// Takes bytes at the link's rate.
    fn enter(self, mut from: TcpStream, pipe: &Pipe) {
        let mut buffer = [0; SEGMENT[0]];
        let mut free = Instant::now();
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let on_wire = (read + SEGMENT[1] - SEGMENT[0]) as f64 * 8.0 / self.rate;
            free = free.max(Instant::now()) + Duration::from_secs_f64(on_wire);
            pipe.push((free + self.delay, buffer[..read].to_vec()));
            if let Some(ahead) = free.checked_duration_since(Instant::now() + QUEUE) {
                thread::sleep(ahead);
            }
        }
        pipe.close();
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    flying: Mutex<Flying>,
    changed: Condvar,
}

/// What is on its way.
#[derive(Default)]
struct Flying {
    /// When it arrives, and its bytes.
    segments: VecDeque<(Instant, Vec<u8>)>,
    is_closed: bool,
}

impl Pipe {
    fn push(&self, segment: (Instant, Vec<u8>)) {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner).segments.push_back(segment);
        self.changed.notify_one();
    }

    fn close(&self) {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.changed.notify_one();
    }

    /// The next segment; `None` after the last.
    fn next(&self) -> Option<(Instant, Vec<u8>)> {
        let flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |flying: &mut Flying| flying.segments.is_empty() && !flying.is_closed;
        let flying = self.changed.wait_while(flying, waiting);
        flying.unwrap_or_else(PoisonError::into_inner).segments.pop_front()
    }

    fn leave(&self, mut to: TcpStream) {
        while let Some((arrives, bytes)) = self.next() {
            thread::sleep(arrives.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        // The other side may be gone.
        let _ = to.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_takes_what_the_link_does() {
        let link = Link { rate: 8e6, delay: Duration::from_millis(10) };
        for seconds in link.there_and_back(10_000, 2).unwrap() {
            assert!(seconds > 2.0 * (link.seconds(10_000) * 0.9 + 0.01), "{seconds}");
        }
    }

    #[test]
    fn bytes_come_whole_and_late() {
        let link = Link { rate: 8e6, delay: Duration::from_millis(20) };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = link.proxy(listener.local_addr().unwrap()).unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = vec![];
            stream.read_to_end(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
            bytes.len()
        });
        let sent: Vec<u8> = (0..50_000).map(|at| (at % 251) as u8).collect();
        let start = Instant::now();
        let mut stream = TcpStream::connect(proxy).unwrap();
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut back = vec![];
        stream.read_to_end(&mut back).unwrap();
        assert_eq!((echo.join().unwrap(), &back), (sent.len(), &sent));
        // No earlier than the link's rate and delay allow, there and back.
        assert!(start.elapsed().as_secs_f64() > 2.0 * (link.seconds(50_000) * 0.9 + 0.02));
    }
}
