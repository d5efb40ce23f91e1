//! Compiles the protocol files without protoc, and tells the linker how the programs without a C runtime
//! start.

fn main() {
    for (feature, program) in
        [("CARGO_FEATURE_PAUSE", "haled-pause"), ("CARGO_FEATURE_AGENT", "haled-agent")]
    {
        // They bring their own _start.
        if std::env::var_os(feature).is_some() {
            for arg in ["-nostartfiles", "-nostdlib", "-static"] {
                println!("cargo:rustc-link-arg-bin={program}={arg}");
            }
        }
    }
    #[cfg(feature = "daemon")]
    protocol::compile();
}

#[cfg(feature = "daemon")]
mod protocol {
    /// Every message and service under `proto/`, as Rust under `OUT_DIR`.
    pub(crate) fn compile() {
        println!("cargo:rerun-if-changed=proto");
        // Each of the two services imports all the rest of the CRI.
        let files = [
            "cri/v1/runtime_service.proto",
            "cri/v1/image_service.proto",
            "haled/v1/haled.proto",
            "haled/v1/images.proto",
            "nri/v1/nri.proto",
        ];
        let set = protox::compile(files, ["proto"]).unwrap_or_else(|error| panic!("{error}"));
        tonic_prost_build::configure()
            .bytes(".haled.v1")
            // What plugins are told must not depend on a hash map's order.
            .btree_map(".nri.pkg.api.v1alpha1")
            .compile_fds(set)
            .unwrap_or_else(|error| panic!("cannot generate the protocol code: {error}"));
    }
}
