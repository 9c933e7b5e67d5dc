//! Compiles the Protobuf files with protox, so that the build needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/submission.proto",
        "proto/person.proto",
        "proto/totals.proto",
        "proto/history.proto",
        "proto/signal.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}
