// Package recent keeps the last of many short texts by their names, in little memory: nothing in it is a pointer to one of them.
package recent

import (
	"hash/maphash"
	"iter"
)

// pageSize is how many texts are forgotten at once.
const pageSize = 1000

// Texts are the texts that were put last. They are for one goroutine at a time.
//
// Names and texts lie one behind another in pages of bytes, and are found by a hash of the name. As strings in a map they would take half as much again,
// and the garbage collector would look at each of them every time. Of two names with the same hash, of 64 bits, the older
// one is forgotten.
type Texts struct {
	most   int
	seed   maphash.Seed
	places map[uint64]place // by the hash of the name
	pages  []page           // the oldest first
	first  uint32           // the number of the oldest page
}

// page has one text behind another, each behind its name.
type page struct {
	bytes  []byte
	hashes []uint64 // of the names
}

// place is where a text is.
type place struct{ page, name, text, end uint32 }

// New returns a store of so many texts, or up to 1,000 more.
func New(most int) *Texts {
	return &Texts{most: most, seed: maphash.MakeSeed(), places: map[uint64]place{}}
}

// Put keeps a text, in place of an older one of that name.
func (t *Texts) Put(name, text string) {
	if n := len(t.pages); n == 0 || len(t.pages[n-1].hashes) == pageSize {
		t.turn()
	}
	p, hash := &t.pages[len(t.pages)-1], maphash.String(t.seed, name)
	at := place{page: t.first + uint32(len(t.pages)-1), name: uint32(len(p.bytes))} //nolint:gosec // so many pages, of so many bytes, are never there
	p.bytes = append(p.bytes, name...)
	at.text = uint32(len(p.bytes)) //nolint:gosec // as above
	p.bytes = append(p.bytes, text...)
	at.end = uint32(len(p.bytes)) //nolint:gosec // as above
	p.hashes = append(p.hashes, hash)
	t.places[hash] = at
}

// turn begins a page. It takes the memory of the oldest one when there are enough.
func (t *Texts) turn() {
	if len(t.pages)*pageSize < t.most+pageSize {
		t.pages = append(t.pages, page{})
		return
	}
	oldest := t.pages[0]
	for _, hash := range oldest.hashes {
		if t.places[hash].page == t.first {
			delete(t.places, hash)
		}
	}
	copy(t.pages, t.pages[1:])
	next := page{bytes: oldest.bytes[:0], hashes: oldest.hashes[:0]}
	if cap(next.bytes) > keptBytes {
		next.bytes = nil
	}
	t.pages[len(t.pages)-1] = next
	t.first++
}

// keptBytes is how much memory of a page the next one takes over: some texts are long, and seldom.
const keptBytes = 1 << 20

// Get returns the text of that name, if it is there.
func (t *Texts) Get(name string) (text string, ok bool) {
	at, ok := t.places[maphash.String(t.seed, name)]
	if !ok {
		return "", false
	}
	b := t.pages[at.page-t.first].bytes
	if string(b[at.name:at.text]) != name {
		return "", false
	}
	return string(b[at.text:at.end]), true
}

// All are the texts of one moment, by their names. They do not change when others are put meanwhile.
func (t *Texts) All() iter.Seq2[string, string] {
	pages := make([][]byte, len(t.pages))
	places := make([]place, 0, len(t.places))
	for i, p := range t.pages {
		pages[i] = append([]byte(nil), p.bytes...)
	}
	for _, at := range t.places {
		at.page -= t.first
		places = append(places, at)
	}
	return func(yield func(name, text string) bool) {
		for _, at := range places {
			b := pages[at.page]
			if !yield(string(b[at.name:at.text]), string(b[at.text:at.end])) {
				return
			}
		}
	}
}
