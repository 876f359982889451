// Package storefront is the simulated shop and what publishes events to Kafka, for
// it and for recorded files.
//
// Not allowed here: anything that knows rules, profiles or segments. The shop (Shop)
// reads no clock and is a function of its Config alone; only Publisher and Run wait.
package storefront
