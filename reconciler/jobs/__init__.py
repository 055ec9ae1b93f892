"""What happens to job records inside one transaction of the store. Never talks to a worker."""
