//! Schemes that the paper's Table 2 names: doubly homomorphic encryption by Boneh, Goh and Nissim, and exponential ElGamal.

mod bgn;
mod elgamal;

pub use bgn::BgnKey;
pub use elgamal::ElGamalKey;
