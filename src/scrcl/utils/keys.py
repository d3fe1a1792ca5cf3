"""Keys that scrcl writes to AnnData or reads from it."""

from typing import Final

#: ``obsm`` key of the cell features of the encoders.
FEATURES_KEY: Final = "X_scrcl_features"
#: ``obsm`` key of the weights of the modalities.
WEIGHTS_KEY: Final = "scrcl_modality_weights"
#: ``uns`` key of the cell graph, in the form of :func:`scanpy.pp.neighbors`.
NEIGHBORS_KEY: Final = "scrcl_neighbors"
#: ``obsp`` key of the binary, symmetric cell graph.
CONNECTIVITIES_KEY: Final = "scrcl_connectivities"
#: ``obsp`` key of the distances between a cell and its nearest neighbours.
DISTANCES_KEY: Final = "scrcl_distances"
#: ``var`` key that marks the selected genes.
GENES_KEY: Final = "scrcl_genes"
#: ``varp`` key of the directed gene graph (row: gene, column: its neighbour).
GENE_GRAPH_KEY: Final = "scrcl_gene_graph"
#: ``varm`` key of the gene features of the gene encoder.
GENE_FEATURES_KEY: Final = "scrcl_gene_features"
#: ``uns`` key of the parameters of the preparation.
PARAMS_KEY: Final = "scrcl"
#: ``uns`` key of the run record that the command line writes.
RUN_KEY: Final = "scrcl_run"
#: ``obsm`` key of the latent representation (command line, tutorials).
LATENT_KEY: Final = "X_scrcl"
#: ``obsm`` key of the two-dimensional map of the latent representation.
UMAP_KEY: Final = "X_scrcl_umap"
#: ``uns`` key of the checksum of the latent representation behind the map.
UMAP_SOURCE_KEY: Final = "scrcl_umap"
#: ``obs`` key of the clusters (command line, tutorials).
CLUSTERS_KEY: Final = "scrcl"
#: ``obs`` key of the probability of the cluster of each cell (command line).
CLUSTERS_PROBABILITY_KEY: Final = "scrcl_probability"
#: ``obs`` key of the types learned from labels (command line, tutorials), and of their probabilities.
TYPES_KEY: Final = "scrcl_type"
TYPES_CONFIDENCE_KEY: Final = "scrcl_type_confidence"
#: ``uns`` key of the report on the gene network that was passed: genes, pairs and unknown names.
GENE_NETWORK_KEY: Final = "scrcl_gene_network"
#: ``uns`` key of marker genes, in the form of :func:`scanpy.tl.rank_genes_groups`.
MARKERS_KEY: Final = "scrcl_markers"
#: Name of the groups of marker genes that are the clusters of the model, where ``obs`` has other ones under the key above.
MARKER_GROUPS_KEY: Final = "scrcl_marker_groups"
#: ``uns`` key of where the names of clusters come from.
NAMES_KEY: Final = "scrcl_names"
#: ``obs`` key of the names of cells from marker genes (command line).
CELL_NAMES_KEY: Final = "scrcl_name"
#: ``obs`` key of identifiers of the Cell Ontology, as the schema of CELLxGENE has it, and the value where none is known.
TERMS_KEY: Final = "cell_type_ontology_term_id"
UNKNOWN_TERM: Final = "unknown"
