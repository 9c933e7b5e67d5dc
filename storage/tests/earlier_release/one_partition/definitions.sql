-- Rows as release 0.1.0 wrote them. Must never be changed.
INSERT INTO history VALUES (1, '{"id":"taxes","name":"Taxes","categories":[{"id":"health","name":"Health"},{"id":"education","name":"Education"}],"results":"live","minimum_people":1,"identity":"required","revision":1,"frozen":true}');
