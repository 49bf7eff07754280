package name

import "testing"

func TestIs(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"default", "a", "Bulk-2", "eu_bulk", "0", "-"} {
		if !Is(name) {
			t.Errorf("%q is refused", name)
		}
	}
	for _, name := range []string{
		"", " ", "with blank", " bulk", "größe", "eu.bulk", "bulk:mass", "bulk~2", "{bulk}", "default;bulk", "default=3", "a,b",
		"a\n", "a\x00", "a\xff", "a/b", "a%b", "a*", "ａ",
	} {
		if Is(name) {
			t.Errorf("%q is taken", name)
		}
	}
}
