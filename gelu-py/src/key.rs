//! Keys, which stay in the process that made them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use gelu_net::io::files::{check_owner_only, read_limited, write_atomic, write_secret};
use gelu_net::tensor::paillier::{KeyBits, KeyParameters, KeyType, SecretKey as Key};
use gelu_net::wire::{decode_secret_key, encode_public_key, encode_secret_key};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use zeroize::Zeroizing;

use crate::error::{Result, SecretKeyError};
use crate::run::detached;

/// A key's place, empty once it was wiped.
type Place = Mutex<Option<Arc<Key>>>;

/// All keys of the process, to be wiped in what is forked from it.
static ALL: Mutex<Vec<Weak<Place>>> = Mutex::new(vec![]);

/// The longest key file that is read.
const MOST_BYTES: u64 = 1 << 16;

/// The data owner's secret key. It is kept in this process alone: it cannot be pickled or copied, a forked process does not have
/// it, and it is wiped at the end of a `with` block, by `wipe()`, or when it is no longer used.
#[pyclass(frozen, module = "gelu", name = "SecretKey")]
pub(crate) struct SecretKey {
    place: Arc<Place>,
    process: u32,
    parameters: KeyParameters,
    fingerprint: String,
}

/// The parameters of a key that Python asks for.
pub(crate) fn parameters(bits: usize, key_type: &str) -> PyResult<KeyParameters> {
    let wrong = |error: gelu_net::tensor::Error| PyValueError::new_err(error.to_string());
    let size = KeyBits::try_from(bits).map_err(wrong)?;
    let key_type = key_type.parse::<KeyType>().map_err(wrong)?;
    Ok(KeyParameters { size, key_type })
}

impl SecretKey {
    fn new(key: Key) -> Self {
        let (parameters, fingerprint) = (key.public_key().parameters(), key.public_key().fingerprint_hex());
        let place = Arc::new(Mutex::new(Some(Arc::new(key))));
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|key| key.strong_count() > 0);
        all.push(Arc::downgrade(&place));
        Self { place, process: std::process::id(), parameters, fingerprint }
    }

    /// The key, in the process that made it and before it was wiped.
    pub(crate) fn key(&self) -> PyResult<Arc<Key>> {
        if self.process != std::process::id() {
            return Err(SecretKeyError::new_err(
                "this process was forked, and secret keys stay in the process that made them: make or load one here",
            ));
        }
        let key = self.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        key.ok_or_else(|| SecretKeyError::new_err("the secret key was wiped: make or load another"))
    }

    pub(crate) fn describe(&self) -> String {
        let KeyParameters { size, key_type } = self.parameters;
        format!("{size} bits, {key_type}, {}", self.fingerprint.get(..12).unwrap_or_default())
    }
}

#[pymethods]
impl SecretKey {
    /// Returns a new key of `bits` bits (1024, for tests only; 2048; 3072; 4096). `key_type` is "djn", or "subgroup", which is
    /// several times faster for the client, under one assumption more (SECURITY.md).
    ///
    /// Raises ValueError for other sizes and types.
    #[staticmethod]
    #[pyo3(signature = (bits=3072, *, key_type="djn"))]
    fn generate(py: Python<'_>, bits: usize, key_type: &str) -> Result<Self> {
        let parameters = parameters(bits, key_type)?;
        Ok(Self::new(detached(py, || Key::generate(parameters, &mut rand::rng()))??))
    }

    /// Reads the key of a file, which only its owner may be able to read.
    ///
    /// Raises FileError, or WireError when it holds no key.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> Result<Self> {
        check_owner_only(&path)?;
        let bytes = Zeroizing::new(read_limited(&path, MOST_BYTES)?);
        Ok(Self::new(detached(py, || decode_secret_key(&bytes))??))
    }

    /// Writes the key to a file that only its owner can read.
    ///
    /// Raises FileError.
    fn save(&self, path: PathBuf) -> Result<()> {
        Ok(write_secret(&path, &encode_secret_key(&*self.key()?)?)?)
    }

    /// Writes the public key to a file.
    ///
    /// Raises FileError.
    fn save_public(&self, path: PathBuf) -> Result<()> {
        Ok(write_atomic(&path, &encode_public_key(self.key()?.public_key())?)?)
    }

    /// Wipes the key from memory; work that is using it wipes it at its end. Using it afterwards raises SecretKeyError.
    fn wipe(&self) {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The size of the modulus in bits.
    #[getter]
    fn bits(&self) -> usize {
        self.parameters.size.bits()
    }

    /// "djn" or "subgroup".
    #[getter]
    fn key_type(&self) -> &'static str {
        self.parameters.key_type.name()
    }

    /// The fingerprint of the public key, in hexadecimal digits.
    #[getter]
    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether the key is gone: wiped, or left behind in the process that this one was forked from.
    #[getter]
    fn is_wiped(&self) -> bool {
        self.key().is_err()
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __exit__(&self, _kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _trace: &Bound<'_, PyAny>) {
        self.wipe();
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err(
            "a secret key is not pickled: save() writes it to a file that only its owner can read",
        ))
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a secret key is not copied: use the same object"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        self.__copy__()
    }

    fn __repr__(&self) -> String {
        let state = if self.is_wiped() { ", wiped" } else { "" };
        format!("<gelu.SecretKey of the data owner: {}{state}>", self.describe())
    }
}

/// Wipes every key, in a process that was just forked.
#[pyfunction]
pub(crate) fn _forget_keys() {
    // A lock that another thread held when the process was forked stays locked: such a key is refused by its process's number.
    let Ok(mut all) = ALL.try_lock() else { return };
    for place in all.drain(..).filter_map(|key| key.upgrade()) {
        if let Ok(mut key) = place.try_lock() {
            key.take();
        }
    }
}
