//! Image sets in the IDX format and from the Hub: MNIST and its relatives
