//go:build race

package main

// raceFactor is how many times the memory a program takes under the race detector: three to ten, says its documentation.
const raceFactor = 4
