//! `Container`: the image, the files and the facts of the node that the simulated programs of a container use.

use super::image::Image;
use crate::container_files::ContainerFiles;
use crate::node_fixture::NodeFacts;

/// The image, files and node of a container.
#[derive(Clone)]
pub(super) struct Container {
    pub(super) image: Image,
    pub(super) files: ContainerFiles,
    pub(super) facts: NodeFacts,
}
