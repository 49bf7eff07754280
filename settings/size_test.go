package settings

import "testing"

func TestSize(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want Size // -1: refused
		show string
	}{
		{"0", 0, "0"},
		{"65536", 65536, "64KiB"},
		{"64000", 64000, "64kB"},
		{"64kB", 64000, "64kB"},
		{"64 KB", 64000, "64kB"},
		{"1.5MB", 1_500_000, "1500kB"},
		{"25MB", 25_000_000, "25MB"},
		{"25mib", 25 << 20, "25MiB"},
		{"1GB", 1_000_000_000, "1GB"},
		{"1GiB", 1 << 30, "1GiB"},
		{"1023", 1023, "1023"},
		{"-1", -1, ""},
		{"-1kB", -1, ""},
		{"1.5", -1, ""},
		{"0.0001kB", -1, ""},
		{"kB", -1, ""},
		{"64k", -1, ""},
		{"64 kB/s", -1, ""},
		{"NaN", -1, ""},
		{"Inf", -1, ""},
		{"1e300GB", -1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			var got Size
			err := got.UnmarshalText([]byte(tt.text))
			if tt.want < 0 {
				if err == nil {
					t.Errorf("read as %d, want an error", got)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Fatalf("got %d, %v, want %d", got, err, tt.want)
			}
			if got.String() != tt.show {
				t.Errorf("shown as %q, want %q", got, tt.show)
			}
			if n := got.OrNever(); n != int(got) && (n >= 0 || got != 0) || n == 0 {
				t.Errorf("OrNever = %d", n)
			}
			var back Size
			if err := back.UnmarshalText([]byte(got.String())); err != nil || back != got {
				t.Errorf("%q is read back as %d, %v", got, back, err)
			}
		})
	}
}
