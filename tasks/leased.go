package tasks

// leased is how many connections there may be of those that all workers may have together.
type leased struct {
	most   int           // -1: no limit
	wanted chan struct{} // holds a token when one more would have been opened
}

func notLeased() leased { return leased{most: -1, wanted: make(chan struct{}, 1)} }

// oneMore reports whether there may be one more than so many.
func (l leased) oneMore(than int) bool {
	if l.most < 0 || than < l.most {
		return true
	}
	select {
	case l.wanted <- struct{}{}:
	default:
	}
	return false
}

// least is n, or how many there may be if that is less.
func (l leased) least(n int) int {
	if l.most >= 0 {
		return min(n, l.most)
	}
	return n
}
