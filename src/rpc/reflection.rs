//! What the node knows and tells of its services, so that a client such as grpcurl needs no proto file.

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use std::collections::HashSet;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

/// Of `proto/storage.proto`, made by the build.
const STORAGE: &[u8] = tonic::include_file_descriptor_set!("storage");

fn services() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(STORAGE)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // Of the details of a status.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// Paths of the methods of the storage service whose requests are one message each.
pub(super) fn unary_requests() -> HashSet<String> {
    let files = FileDescriptorSet::decode(STORAGE).unwrap_or_default().file;
    files.iter().flat_map(unary_requests_of).collect()
}

fn unary_requests_of(file: &FileDescriptorProto) -> impl Iterator<Item = String> {
    file.service.iter().flat_map(move |service| {
        let unary = service.method.iter().filter(|method| !method.client_streaming());
        unary.map(move |method| format!("/{}.{}/{}", file.package(), service.name(), method.name()))
    })
}

/// Adds both versions of the reflection service: clients ask for one or the other.
///
/// # Errors
/// When the descriptors that the build made are not ones.
pub(super) fn add_to(routes: Routes) -> Result<Routes, Error> {
    let v1 = services().build_v1()?;
    let v1alpha = services().build_v1alpha()?;
    Ok(routes
        .add_service(v1.accept_compressed(CompressionEncoding::Gzip))
        .add_service(v1alpha.accept_compressed(CompressionEncoding::Gzip)))
}
