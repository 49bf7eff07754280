package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// A compressed payload is a line of JSON, which programs and scripts of Redis read without decompressing anything, and a
// frame of zstd (RFC 8878) with the payloads as they would be without it:
//
//	{"version":3,"due_at":"...","mailing":"spring","messages":100,"message":null}
//	frame: {"version":2,"due_at":"...","mailing":"spring","message":{...}}
//	       {"version":2, ...
//
// Versions before that find a newer version in the first line, and leave the task to a newer worker.

// head is the first line of a compressed payload, without its end. Of a task of one message it has that one's meta but for what may
// be long; of a bulk task what holds for all its messages, and of their times the last.
type head struct {
	Meta
	Messages int `json:"messages"`
}

// noMessage ends the first line of a compressed payload, and magic begins the frame.
var (
	noMessage = []byte(`,"message":null}` + "\n")
	magic     = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

const (
	// compressFrom is how many bytes a single payload has that is compressed. Each mail costs 20 us of processor time whatever its size is, so
	// that a saved byte costs 30 to 80 ns below 2 kB, and 10 to 20 from here on: see BenchmarkCodec.
	compressFrom = 8000

	// MaxUnpacked is how many bytes a compressed payload may have without compression. What has more is not compressed.
	MaxUnpacked = 16 << 20

	// window is how far back zstd looks for what is the same. Few bulk tasks are longer.
	window = 1 << 20
)

// Codec writes and reads payloads of tasks, compressed ones too, and keeps what that takes for the next one. The zero value is ready
// for use, by several goroutines at the same time.
type Codec struct {
	encoders, decoders, buffers sync.Pool
	always                      bool // whether a single payload is compressed however short it is: for benchmarks
}

// Encode returns the payload of a task of one message. If it is one to compress, reads is asked which version all workers read.
func (c *Codec) Encode(p *Payload, reads func() int) ([]byte, error) {
	data, err := p.Encode()
	if err != nil || len(data) < compressFrom && !c.always || reads() < versionCompressed {
		return data, err
	}
	h := head{Meta: p.Meta, Messages: 1}
	h.Recipients, h.Refused, h.Blobs, h.BlobRef, h.Tags = nil, "", nil, "", nil
	if packed, err := c.compress(h, data); packed != nil || err != nil {
		return packed, err
	}
	return data, nil
}

// EncodeMany returns the payload of a bulk task with these messages, for workers that all read that version.
func (c *Codec) EncodeMany(payloads []*Payload, reads int) ([]byte, error) {
	buffer := new([]byte)
	if reads >= versionCompressed {
		buffer = c.buffer()
	}
	lines := (*buffer)[:0]
	h := head{Messages: len(payloads)}
	for i, p := range payloads {
		var err error
		if lines, err = p.Append(lines); err != nil {
			return nil, err
		}
		lines = append(lines, '\n')
		if h.add(i, &p.Meta); i == 0 {
			lines = slices.Grow(lines, len(lines)*len(payloads)) // the others are much the same
		}
	}
	if reads < versionCompressed {
		return lines, nil
	}
	packed, err := c.compress(h, lines)
	if packed == nil && err == nil {
		return lines, nil
	}
	*buffer = lines
	c.buffers.Put(buffer)
	return packed, err
}

// add makes the head say what holds for one more message, number i.
func (h *head) add(i int, m *Meta) {
	if i == 0 {
		h.Meta = Meta{Using: m.Using, DueAt: m.DueAt, Deadline: m.Deadline, Mailing: m.Mailing}
		return
	}
	if m.DueAt.After(h.DueAt) {
		h.DueAt = m.DueAt
	}
	if m.Deadline == nil || h.Deadline != nil && m.Deadline.After(*h.Deadline) {
		h.Deadline = m.Deadline
	}
}

// compress returns the payload data compressed, or nothing if that is not shorter.
func (c *Codec) compress(h head, data []byte) (packed []byte, _ error) {
	if len(data) > MaxUnpacked {
		return nil, nil
	}
	encoder, _ := c.encoders.Get().(*zstd.Encoder)
	if encoder == nil {
		var err error
		encoder, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, err
		}
	}
	defer c.encoders.Put(encoder)
	h.Version = versionCompressed
	line, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	buffer := c.buffer() // nobody knows before how little of it is left
	defer c.buffers.Put(buffer)
	*buffer = append(append((*buffer)[:0], line[:len(line)-1]...), noMessage...)
	if *buffer = encoder.EncodeAll(data, *buffer); len(*buffer) >= len(data) {
		return nil, nil
	}
	return slices.Clone(*buffer), nil
}

// cut parts a compressed payload. It is false for another one.
func cut(payload []byte) (line, frame []byte, ok bool) {
	at := bytes.IndexByte(payload, '\n') + 1
	if at == 0 || !bytes.HasPrefix(payload[at:], magic) || !bytes.HasSuffix(payload[:at], noMessage) {
		return nil, nil, false
	}
	return payload[:at], payload[at:], true
}

// unpackedSize is how many bytes a frame says that it has without compression.
func unpackedSize(frame []byte) (int, error) {
	var h zstd.Header
	if err := h.Decode(frame); err != nil {
		return 0, errFrame
	}
	if !h.HasFCS || h.FrameContentSize > MaxUnpacked {
		return 0, fmt.Errorf("tasks: payload: a compressed one of more than %d bytes, or that does not say of how many", MaxUnpacked)
	}
	return int(h.FrameContentSize), nil
}

var errFrame = errors.New("tasks: payload: it is compressed, and damaged")

// Size is how many bytes the payload of a task has without compression, as far as it says so.
func Size(payload []byte) int {
	_, frame, ok := cut(payload)
	if !ok {
		return len(payload)
	}
	n, err := unpackedSize(frame)
	if err != nil {
		return len(payload)
	}
	return n
}

// Count is how many messages a bulk task has.
func Count(payload []byte) int {
	line, _, ok := cut(payload)
	if !ok {
		return bytes.Count(payload, []byte("\n"))
	}
	var h head
	_ = json.Unmarshal(line, &h) // what cannot be read has none
	return h.Messages
}

// Unpack returns the payload of a task without compression: itself if it has none. It reads no more than MaxUnpacked bytes.
func (c *Codec) Unpack(payload []byte) ([]byte, error) {
	_, frame, ok := cut(payload)
	if !ok {
		return payload, nil
	}
	return c.decompress(frame, nil)
}

// decompress returns what is in a frame, in the memory of buffer if that is enough.
func (c *Codec) decompress(frame, buffer []byte) ([]byte, error) {
	size, err := unpackedSize(frame)
	if err != nil {
		return nil, err
	}
	decoder, _ := c.decoders.Get().(*zstd.Decoder)
	if decoder == nil {
		decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(MaxUnpacked), zstd.WithDecoderMaxWindow(MaxUnpacked))
		if err != nil {
			return nil, err
		}
	}
	defer c.decoders.Put(decoder)
	data, err := decoder.DecodeAll(frame, slices.Grow(buffer[:0], size)[:0:size]) // it takes no more than there is room
	if err != nil || len(data) != size {
		return nil, errFrame
	}
	return data, nil
}

// Decode reads the payload of a task of one message that has these headers.
func (c *Codec) Decode(payload []byte, headers map[string]string) (*Payload, error) {
	data, err := c.Unpack(payload)
	if err != nil {
		return nil, err
	}
	return decode(data, headers)
}

// Lines yields the payloads of a bulk task. A task that cannot be decompressed has one line, itself, which
// cannot be read either. When the loop ends the memory of the lines is used for the next task.
func (c *Codec) Lines(payload []byte) iter.Seq[[]byte] {
	_, frame, ok := cut(payload)
	if !ok {
		return bytes.Lines(payload)
	}
	return func(yield func([]byte) bool) {
		buffer := c.buffer()
		data, err := c.decompress(frame, *buffer)
		if err != nil {
			yield(payload)
			return
		}
		for line := range bytes.Lines(data) {
			if !yield(line) {
				break
			}
		}
		*buffer = data
		c.buffers.Put(buffer)
	}
}

// buffer is memory that is nobody's.
func (c *Codec) buffer() *[]byte {
	if buffer, _ := c.buffers.Get().(*[]byte); buffer != nil {
		return buffer
	}
	return new([]byte)
}

// Decode is Codec.Decode for who reads one now and again.
func Decode(payload []byte, headers map[string]string) (*Payload, error) {
	return new(Codec).Decode(payload, headers)
}

// Plain is the payload of a task without compression, or as it is if it cannot be decompressed.
func Plain(payload []byte) []byte {
	data, err := new(Codec).Unpack(payload)
	if err != nil {
		return payload
	}
	return data
}

// Lines is Codec.Lines for who reads one now and again, or keeps the lines.
func Lines(payload []byte) iter.Seq[[]byte] { return new(Codec).Lines(payload) }
