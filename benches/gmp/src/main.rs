//! Powers mod n^2 by this project's engine and by GMP, in turns, on one thread.
//!
//! ```sh
//! cd benches/gmp && GELU_BACKEND=adx cargo run --release
//! ```
//!
//! GMP is built from source (this needs a C compiler and m4). `mpz_powm` takes sliding windows and looks tables up by
//! secret indices; `mpz_powm_sec`, like this engine, does not.

use std::time::Instant;

use gelu_tensor::Backend;
use gelu_tensor::hazmat::{Exponent, Residues};
use gelu_tensor::paillier::{KeyBits, SecretKey};
use rand::{Rng, SeedableRng, rngs::ChaCha20Rng};
use rug::Integer;
use rug::integer::Order;

const RUNS: usize = 15;

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let backend = std::env::var("GELU_BACKEND").map_or_else(|_| Ok(Backend::detect()), |name| name.parse())?;
    println!("x^e mod n^2 for exponents of as many bits as n, medians of {RUNS} runs in turns, one thread\n");
    println!("n, bits  backend   ours, ms  mpz_powm, ms  ratio  mpz_powm_sec, ms  ratio");
    for size in [KeyBits::Bits2048, KeyBits::Bits3072] {
        let key = SecretKey::generate(size, rng)?.on(backend)?;
        let public = key.public_key();
        let n = Integer::from_digits(&public.n_le_bytes(), Order::Lsf);
        let square = n.clone() * &n;
        let mut bytes = vec![0; public.ciphertext_bytes()];
        rng.fill_bytes(&mut bytes);
        let base = Integer::from_digits(&bytes, Order::Lsf) % &square;
        base.write_digits(&mut bytes, Order::Lsf);
        let residue = Residues::decode(public, &bytes)?;
        let mut limbs: Vec<u64> = (0..size.bits() / 64).map(|_| rng.next_u64()).collect();
        if let Some(top) = limbs.last_mut() {
            *top |= 1 << 63;
        }
        let (e, exponent) = (Integer::from_digits(&limbs, Order::Lsf), Exponent::new(limbs));

        let mut times = [vec![], vec![], vec![]];
        for _ in 0..RUNS {
            let start = Instant::now();
            let ours = residue.power(public, &exponent)?;
            times[0].push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            let theirs = Integer::from(base.pow_mod_ref(&e, &square).ok_or("no power")?);
            times[1].push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            let secure = Integer::from(base.secure_pow_mod_ref(&e, &square));
            times[2].push(start.elapsed().as_secs_f64());
            let ours = Integer::from_digits(&ours.encode(public)?, Order::Lsf);
            if ours != theirs || ours != secure {
                return Err("the powers differ".into());
            }
        }
        let [ours, theirs, secure] = times.map(median);
        println!(
            "{:>7}  {:<8}  {:>8.3}  {:>12.3}  {:>5.2}  {:>16.3}  {:>5.2}",
            size.bits(),
            public.backend(),
            1e3 * ours,
            1e3 * theirs,
            ours / theirs,
            1e3 * secure,
            ours / secure
        );
    }
    Ok(())
}
