//! Compiles the service's `.proto`, without `protoc`: a browser speaks the frames that all clients speak.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const PROTO: &str = "../gelu-service/proto";
    println!("cargo:rerun-if-changed={PROTO}");
    prost_build::Config::new().compile_fds(protox::compile(["gelu/v1/gelu.proto"], [PROTO])?)?;
    Ok(())
}
