// Package storefront is the simulated shop, a crowd for load, and what publishes events
// to Kafka, for them and for recorded files.
//
// Not allowed here: anything that knows rules, profiles or segments. Shop and Crowd
// read no clock and are functions of their configs alone; only Publisher and Run wait.
package storefront
