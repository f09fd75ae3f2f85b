//! One test binary over the whole project; a module per subject.
#![forbid(unsafe_code)]

mod artifact;
mod bench;
mod browser;
mod cache;
mod calibrate;
mod chat_page;
mod cli;
mod compile;
mod devices;
mod documents;
mod emulate;
mod exec;
mod generate;
mod geometry;
mod glue;
mod gpu;
mod laws;
mod linear;
mod lowering;
mod manners;
mod model_shapes;
mod mutants;
mod nvrtc;
mod page;
mod plans;
mod proven;
mod quality;
mod serve;
mod serve_bodies;
mod serve_curl;
mod serve_document;
mod serve_load;
mod synthetic;
mod tasks;
mod verify;
