//! What JavaScript sees of the module: for the worker of the package, not for pages.

#![allow(missing_docs, reason = "gelu.d.ts documents what pages use; these are as they are called there")]

use std::sync::Arc;

use gelu_models::plan::Reveal;
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, RandomnessPool, SecretKey};
use gelu_wire::{Seal, decode_secret_key, encode_secret_key};
use js_sys::{Error as JsError, Reflect};
use rand::SeedableRng;
use rand::rngs::{ChaCha20Rng, SysRng};
use wasm_bindgen::prelude::*;

use crate::drive::make_factors;
use crate::{Direction, Error, Output, Session, Side, Step, Topic};

/// The most random factors that are made ahead.
const MOST_FACTORS: usize = 1 << 16;

/// A client: a key and random factors for encryptions, which are wiped when it is freed.
#[wasm_bindgen(js_name = Client)]
pub struct JsClient {
    key: Arc<SecretKey>,
    pool: Arc<RandomnessPool>,
    rng: ChaCha20Rng,
}

/// A session of a client.
#[wasm_bindgen(js_name = Session)]
pub struct JsSession {
    session: Session,
    rng: ChaCha20Rng,
}

/// A step, as an object that JavaScript frees.
#[wasm_bindgen(js_name = Step)]
pub struct JsStep(Step);

/// What came out.
#[wasm_bindgen(js_name = Output)]
pub struct JsOutput(Output);

/// An `Error` with a `code`.
fn thrown(error: impl Into<Error>) -> JsValue {
    let error = error.into();
    let thrown = JsError::new(&error.to_string());
    // A new object takes a property.
    let _ = Reflect::set(&thrown, &"code".into(), &error.code().name().into());
    thrown.into()
}

fn key_error(error: impl std::fmt::Display) -> JsValue {
    thrown(Error::Key(error.to_string()))
}

fn system_rng() -> Result<ChaCha20Rng, JsValue> {
    ChaCha20Rng::try_from_rng(&mut SysRng).map_err(key_error)
}

#[wasm_bindgen(js_class = Client)]
impl JsClient {
    /// Makes a key.
    pub fn generate(bits: usize, key_type: &str) -> Result<JsClient, JsValue> {
        let size = KeyBits::try_from(bits).map_err(key_error)?;
        let key_type: KeyType = key_type.parse().map_err(key_error)?;
        let mut rng = system_rng()?;
        let key = SecretKey::generate(KeyParameters { size, key_type }, &mut rng).map_err(key_error)?;
        Ok(Self::of(key, rng))
    }

    /// Reads a key that was sealed.
    pub fn unseal(sealed: &[u8], passphrase: &str) -> Result<JsClient, JsValue> {
        let seal = Seal::of(passphrase.as_bytes(), sealed).map_err(key_error)?;
        let key = decode_secret_key(&seal.open(sealed).map_err(key_error)?).map_err(key_error)?;
        Ok(Self::of(key, system_rng()?))
    }

    /// The key under a passphrase.
    pub fn seal(&mut self, passphrase: &str) -> Result<Vec<u8>, JsValue> {
        if passphrase.is_empty() {
            return Err(key_error("expected a passphrase, found none"));
        }
        let bytes = encode_secret_key(&self.key).map_err(key_error)?;
        let seal = Seal::new(passphrase.as_bytes(), &mut self.rng).map_err(key_error)?;
        seal.seal(&bytes, &mut self.rng).map_err(key_error)
    }

    /// Random factors for encryptions that are ready.
    #[wasm_bindgen(getter)]
    pub fn factors(&self) -> usize {
        self.pool.ready()
    }

    /// Makes a few more, as far as there is room for them.
    #[wasm_bindgen(js_name = makeFactors)]
    pub fn make_factors(&mut self) {
        make_factors(&self.pool, &mut self.rng);
    }

    #[wasm_bindgen(getter)]
    pub fn bits(&self) -> usize {
        self.key.public_key().size().bits()
    }

    #[wasm_bindgen(getter, js_name = keyType)]
    pub fn key_type(&self) -> String {
        self.key.public_key().parameters().key_type.to_string()
    }

    #[wasm_bindgen(getter)]
    pub fn fingerprint(&self) -> String {
        self.key.public_key().fingerprint_hex()
    }

    /// The arithmetic that it is computed by.
    #[wasm_bindgen(getter)]
    pub fn backend(&self) -> String {
        self.key.public_key().backend().to_string()
    }

    /// Begins a session about a model. `reveal` is `logits` or `class`, of a hidden model.
    pub fn session(&self, model: String, hidden: bool, reveal: &str) -> Result<JsSession, JsValue> {
        let reveal = match reveal {
            "logits" => Reveal::Logits,
            "class" => Reveal::Class,
            other => {
                return Err(thrown(Error::Input(format!("expected logits or class, found {other}"))));
            }
        };
        let (key, pool) = (Arc::clone(&self.key), Arc::clone(&self.pool));
        let session = Session::new(key, pool, Topic { model, hidden }, reveal).map_err(thrown)?;
        Ok(JsSession { session, rng: system_rng()? })
    }
}

impl JsClient {
    fn of(key: SecretKey, rng: ChaCha20Rng) -> Self {
        let key = Arc::new(key);
        Self { pool: Arc::new(RandomnessPool::new(key.clone(), MOST_FACTORS)), key, rng }
    }
}

#[wasm_bindgen(js_class = Session)]
impl JsSession {
    pub fn open(&mut self) -> Vec<u8> {
        self.session.open()
    }

    #[wasm_bindgen(js_name = takeFrame)]
    pub fn take_frame(&mut self, frame: &[u8]) -> Result<(), JsValue> {
        self.session.take_frame(frame).map_err(thrown)
    }

    #[wasm_bindgen(js_name = nextFrame)]
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        self.session.next_frame()
    }

    pub fn work(&mut self) -> Result<Vec<JsStep>, JsValue> {
        let steps = self.session.work(&mut self.rng).map_err(thrown)?;
        Ok(steps.into_iter().map(JsStep).collect())
    }

    pub fn prepare(&mut self, inputs: usize) {
        self.session.prepare(inputs);
    }

    pub fn start(&mut self, input: &[f32]) -> Result<(), JsValue> {
        self.session.start(input).map_err(thrown)
    }

    #[wasm_bindgen(js_name = takeOutput)]
    pub fn take_output(&mut self) -> Option<JsOutput> {
        self.session.take_output().map(JsOutput)
    }

    pub fn finish(&mut self) -> Result<(), JsValue> {
        self.session.finish().map_err(thrown)
    }

    #[wasm_bindgen(getter, js_name = isReady)]
    pub fn is_ready(&self) -> bool {
        self.session.is_ready()
    }

    #[wasm_bindgen(getter, js_name = isPrepared)]
    pub fn is_prepared(&self) -> bool {
        self.session.is_prepared()
    }

    #[wasm_bindgen(getter, js_name = isOpen)]
    pub fn is_open(&self) -> bool {
        self.session.is_open()
    }

    #[wasm_bindgen(getter, js_name = isOver)]
    pub fn is_over(&self) -> bool {
        self.session.is_over()
    }

    #[wasm_bindgen(getter, js_name = isFlushed)]
    pub fn is_flushed(&self) -> bool {
        self.session.is_flushed()
    }

    #[wasm_bindgen(getter, js_name = keptSeconds)]
    pub fn kept_seconds(&self) -> u32 {
        self.session.kept_seconds()
    }

    /// The extents of an input; none before there is a plan.
    #[wasm_bindgen(getter)]
    pub fn input(&self) -> Vec<u32> {
        let plan = self.session.plan();
        plan.map_or(vec![], |plan| plan.graph().input().dims().iter().map(|&extent| extent as u32).collect())
    }

    /// The names of the segments, in their order.
    #[wasm_bindgen(getter)]
    pub fn segments(&self) -> Vec<String> {
        let plan = self.session.plan();
        plan.map_or(vec![], |plan| plan.segments().iter().map(|segment| segment.name.clone()).collect())
    }
}

#[wasm_bindgen(js_class = Step)]
impl JsStep {
    #[wasm_bindgen(getter)]
    pub fn name(&self) -> String {
        self.0.name.clone()
    }

    #[wasm_bindgen(getter)]
    pub fn kind(&self) -> String {
        self.0.kind.name().to_owned()
    }

    #[wasm_bindgen(getter)]
    pub fn side(&self) -> String {
        let side = match self.0.kind.side() {
            Side::Client => "client",
            Side::Wire => "wire",
        };
        side.to_owned()
    }

    #[wasm_bindgen(getter)]
    pub fn direction(&self) -> Option<String> {
        let direction = match self.0.kind.direction()? {
            Direction::Up => "up",
            Direction::Down => "down",
        };
        Some(direction.to_owned())
    }

    #[wasm_bindgen(getter)]
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    #[wasm_bindgen(getter)]
    pub fn ciphertexts(&self) -> usize {
        self.0.ciphertexts
    }

    #[wasm_bindgen(getter)]
    pub fn sample(&self) -> Option<Vec<u8>> {
        (!self.0.sample.is_empty()).then(|| self.0.sample.clone())
    }
}

#[wasm_bindgen(js_class = Output)]
impl JsOutput {
    #[wasm_bindgen(getter)]
    pub fn outputs(&self) -> Vec<f64> {
        self.0.logits.clone()
    }

    #[wasm_bindgen(getter)]
    pub fn probabilities(&self) -> Option<Vec<f64>> {
        self.0.probabilities.clone()
    }

    #[wasm_bindgen(getter, js_name = class)]
    pub fn class_index(&self) -> usize {
        self.0.class
    }

    #[wasm_bindgen(getter)]
    pub fn integers(&self) -> Vec<i64> {
        self.0.integers.clone()
    }

    #[wasm_bindgen(getter)]
    pub fn clamped(&self) -> u64 {
        self.0.clamped
    }
}
