//! As much of HTTP/2 as it takes to act between frames, and to answer in a server's place.

use crate::plan::Act;

const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What a server sends that answers the first call with this status and nothing else.
pub fn status(status: u16) -> Vec<u8> {
    let mut bytes = frame(SETTINGS, 0, 0, &[]);
    // `:status` is the eighth name of the static table; its value follows as it is.
    let mut head = vec![0x08, 3];
    head.extend(status.to_string().bytes());
    bytes.extend(frame(HEADERS, 5, 1, &head));
    bytes
}

/// Takes a server's bytes apart into frames, and acts after so many.
#[derive(Default)]
pub struct Frames {
    /// Of a frame that is not whole.
    begun: Vec<u8>,
    whole: u64,
    /// The stream of the last frame that had one.
    stream: u32,
}

impl Frames {
    /// What goes on of these bytes, and whether the act is done.
    pub fn take(&mut self, bytes: &[u8], after: u64, act: Act) -> (Vec<u8>, bool) {
        self.begun.extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some(length) = self.length() {
            let frame: Vec<u8> = self.begun.drain(..length).collect();
            self.whole += 1;
            let stream = u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]);
            if stream > 0 {
                self.stream = stream;
            }
            if self.whole <= after || !self.can(act, &frame) {
                out.extend(frame);
                continue;
            }
            match act {
                Act::DropMessage => {}
                Act::GoAway(code) => {
                    out.extend(frame);
                    let mut payload = (i32::MAX as u32).to_be_bytes().to_vec();
                    payload.extend(u32::from(code).to_be_bytes());
                    out.extend(self::frame(GOAWAY, 0, 0, &payload));
                }
                Act::ResetStream(code) => {
                    out.extend(frame);
                    let code = u32::from(code).to_be_bytes();
                    out.extend(self::frame(RST_STREAM, 0, self.stream, &code));
                }
                _ => {
                    out.extend(frame);
                    out.extend([0xff; 64]);
                }
            }
            out.append(&mut self.begun);
            return (out, true);
        }
        (out, false)
    }

    fn length(&self) -> Option<usize> {
        let head = self.begun.get(..HEAD)?;
        let length = HEAD + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        (self.begun.len() >= length).then_some(length)
    }

    fn can(&self, act: Act, frame: &[u8]) -> bool {
        match act {
            Act::DropMessage => holds_a_message(frame),
            Act::ResetStream(_) => self.stream > 0,
            _ => true,
        }
    }
}

/// Whether a frame is of data, with one whole message of gRPC that is large enough for an event.
fn holds_a_message(frame: &[u8]) -> bool {
    let payload = &frame[HEAD..];
    if frame[3] != DATA || frame[4] != 0 || payload.len() < 200 {
        return false;
    }
    let length = u32::from_be_bytes([payload[1], payload[2], payload[3], payload[4]]) as usize;
    length + 5 == payload.len()
}
