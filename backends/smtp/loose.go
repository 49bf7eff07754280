package smtp

import "bytes"

// bigBody is the size from which on a message is written from where it was rendered:
// there is no second copy of it, and its buffer is not used again. Smaller ones
// are copied into their group, and so need not be left alone until they are written.
const bigBody = 256 << 10

// loose is what is written in the middle of a group without being a part of it: a big
// message but for its last line end, which is in the group, so that the end of
// the message is too.
type loose struct {
	at      int // in the group, before the octet there
	octets  []byte
	stuffed bool // it needs the dots of RFC 5321, 4.5.2
}

// add adds a message, stuffed or as it is.
func (g *group) add(body []byte, stuffed bool) {
	if len(body) > bigBody {
		last := len(body) - len(crlf)
		g.loose = append(g.loose, loose{at: len(g.bytes), octets: body[:last], stuffed: stuffed})
		body, stuffed = body[last:], false
	}
	if stuffed {
		g.bytes = appendStuffed(g.bytes, body)
		return
	}
	g.bytes = append(g.bytes, body...)
}

// writeLoose writes a big message in pieces of whole lines, with dots where they are needed.
func (w *writer) writeLoose(b loose) error {
	for rest := b.octets; len(rest) > 0; {
		piece := rest[:min(sliceSize, len(rest))]
		if n := bytes.LastIndexByte(piece, '\n') + 1; n > 0 && len(piece) < len(rest) {
			piece = piece[:n]
		}
		rest = rest[len(piece):]
		if b.stuffed {
			w.piece = appendStuffed(w.piece[:0], piece)
			piece = w.piece
		}
		if err := w.link.write(piece, 0, nil, w.limit); err != nil {
			return err
		}
	}
	return nil
}
