//! Hopper's instructions: `barriers`, `copies` with `access`, `wgmma` with `operands`, `cluster`, all handed out by `control`; and `landing`,
//! where asynchronous operations take effect.

mod access;
mod barriers;
mod cluster;
mod control;
mod copies;
mod landing;
mod operands;
mod wgmma;
