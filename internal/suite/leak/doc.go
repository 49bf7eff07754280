// Package leak holds the test that nothing secret comes out: it sends marked passwords,
// subjects, bodies, header values, attachments and addresses through every path, the bad
// ones above all, and looks for the marks in all that came out of it.
package leak
