package wire

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// words are what the mails of the benchmark are made of: a text that is not the same line again and again.
var words = strings.Fields(`your order has been shipped and will arrive on the next working day please have the number at hand if you call us the
parcel is with our carrier in the city of thank you for buying from our shop we hope that you like it should anything be wrong with what you
have received return it within thirty days free of charge the invoice is attached all prices include tax and delivery best regards from team
account password settings reset link expires in one hour ignore this message unsubscribe privacy terms conditions address street new weekly
offers discount summer collection limited available only until sunday read more view in browser follow support question answer service`)

// prose is a text of so many bytes, different for each seed.
func prose(size, seed int) string {
	var b strings.Builder
	for n := uint32(seed)*2654435761 + 1; b.Len() < size; {
		n = n*1664525 + 1013904223
		b.WriteString(words[int(n>>8)%len(words)])
		b.WriteByte(" \n"[min(n>>24/16, 1)&1])
	}
	return b.String()[:size]
}

// htmlMail is a mail of that many bytes of HTML as shops send it.
func htmlMail(size, seed int) string {
	var b strings.Builder
	b.WriteString("<!DOCTYPE html><html><head><style>body{font-family:Arial,sans-serif;background:#fff}</style></head><body><table width=\"600\" cellpadding=\"0\" cellspacing=\"0\">")
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "<tr><td style=\"padding:12px 24px;border-bottom:1px solid #eeeeee\"><a href=\"https://shop.example.com/item/%d?c=%x\"><img src=\"https://cdn.example.com/i/%x.jpg\" width=\"120\" alt=\"\"></a></td>"+
			"<td style=\"padding:12px 24px;border-bottom:1px solid #eeeeee;font-size:14px\">%s</td></tr>\n", i*7919+seed, seed*2654435761, (i+1)*(seed+17)*40503, prose(160, seed*1000+i))
	}
	return b.String()[:size]
}

// sampleMail is mail number i: of so many bytes, of which the given part is like that of the others.
func sampleMail(i, size int, html bool) *Payload {
	m := &mailer.EmailMessage{
		Subject: fmt.Sprintf("Order %d has been shipped", 100_000+i), FromEmail: "Shop <shop@example.com>",
		To: []string{fmt.Sprintf("Customer %d <%s%d@example.com>", i, words[i%len(words)], i*7919)},
	}
	if html {
		m.Body, m.ContentSubtype = htmlMail(size, i), "html"
	} else {
		m.Body = prose(size, i)
	}
	m = m.WithDefaults(mailer.Defaults{Hostname: "app.example.com"})
	return &Payload{Meta: Meta{DueAt: Due(time.Now())}, Message: m}
}

// mailing is a mass mail: each message greets somebody else, and what follows is the same.
func mailing(n, size int) []*Payload {
	list := make([]*Payload, n)
	text := prose(size, 1)
	for i := range list {
		list[i] = sampleMail(i, 0, false)
		list[i].Message.Body = fmt.Sprintf("Dear customer %d,\n\n", i) + text
		list[i].Mailing = "spring"
	}
	return list
}

// ownCPU is the processor time that this process has used, in seconds.
func ownCPU(b *testing.B) float64 {
	b.Helper()
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano()).Seconds()
}

// BenchmarkCodec is what compression costs program and worker together, and what it saves, by the size of a mail: of one, and of a hundred
// of a mass mail. Mails with and without it are encoded and decoded by turns, for a machine whose speed drifts. All is for one mail.
//
//	go test ./internal/wire -run '^$' -bench Codec
func BenchmarkCodec(b *testing.B) {
	measure := func(b *testing.B, mails int, do func(reads, i int) (bytes int)) {
		var cpu, size [2]float64
		i := 0
		for b.Loop() {
			for n, reads := range []int{versionFirst, Newest} {
				before := ownCPU(b)
				for k := range 20 {
					size[n] += float64(do(reads, i+k))
				}
				cpu[n] += ownCPU(b) - before
			}
			i += 20
		}
		all := float64(20 * mails * b.N)
		b.ReportMetric(1e6*cpu[0]/all, "cpu-us-plain")
		b.ReportMetric(1e6*cpu[1]/all, "cpu-us")
		b.ReportMetric(size[0]/all, "bytes-plain")
		b.ReportMetric(size[1]/all, "bytes")
		b.ReportMetric(1e9*(cpu[1]-cpu[0])/(size[0]-size[1]), "cpu-ns/byte-saved")
		b.ReportMetric(0, "ns/op")
	}
	for _, html := range []bool{false, true} {
		kind := map[bool]string{false: "text", true: "html"}[html]
		for _, size := range []int{500, 1000, 2000, 4000, 8000, 20_000, 60_000} {
			some := make([]*Payload, 64)
			for i := range some {
				some[i] = sampleMail(i, size, html)
			}
			b.Run(fmt.Sprintf("one/%s/%d", kind, size), func(b *testing.B) {
				c := &Codec{always: true}
				measure(b, 1, func(reads, i int) int {
					data, err := c.Encode(some[i%len(some)], func() int { return reads })
					if err == nil {
						_, err = c.Decode(data, nil)
					}
					if err != nil {
						b.Fatal(err)
					}
					return len(data)
				})
			})
		}
	}
	for _, size := range []int{500, 2000, 20_000} {
		list := mailing(100, size)
		b.Run(fmt.Sprintf("mass/%d", size), func(b *testing.B) {
			c := new(Codec)
			measure(b, len(list), func(reads, _ int) int {
				data, err := c.EncodeMany(list, reads)
				if err != nil {
					b.Fatal(err)
				}
				for line := range c.Lines(data) {
					if _, err := decode(line, nil); err != nil {
						b.Fatal(err)
					}
				}
				return len(data)
			})
		})
	}
}
