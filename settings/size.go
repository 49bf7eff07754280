package settings

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes.
type Size int

// units of sizes: powers of 1000, and with an i powers of 1024.
var units = []struct {
	name  string
	bytes Size
}{
	{"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3},
}

// UnmarshalText reads a number of bytes, with or without a unit: "65536", "64kB",
// "1.5 MB", "25MiB". Letter case does not matter.
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := strings.TrimSpace(string(text)), Size(1)
	for _, u := range units {
		if n := len(number) - len(u.name); n >= 0 && strings.EqualFold(number[n:], u.name) {
			number, unit = strings.TrimSpace(number[:n]), u.bytes
			break
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	n *= float64(unit)
	if err != nil || !(n >= 0 && n <= math.MaxInt32*1024) || n != math.Trunc(n) {
		return fmt.Errorf(`%q is not a size, such as "64kB", "25MB" or a number of bytes`, text)
	}
	*s = Size(n)
	return nil
}

// OrNever returns the size, or -1 for 0: tasks.QueueConfig.AttachmentThreshold takes less than
// zero for never, and zero for its default.
func (s Size) OrNever() int {
	if s == 0 {
		return -1
	}
	return int(s)
}

// String writes the size with the biggest unit that gives a whole number.
func (s Size) String() string {
	best := strconv.Itoa(int(s))
	for _, u := range units {
		if whole := strconv.Itoa(int(s/u.bytes)) + u.name; s > 0 && s%u.bytes == 0 && len(whole) <= len(best) {
			best = whole
		}
	}
	return best
}
